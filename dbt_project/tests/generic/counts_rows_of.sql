{#- On every refreshed day, `count_column` adds up to the rows of `source_model` that meet `row_condition`. -#}
{% test counts_rows_of(model, count_column, source_model, day, row_condition='true') %}

select
    {{ day }},
    sum(counted) as counted_rows,
    sum(expected) as expected_rows
from (
    select {{ day }}, toInt64({{ count_column }}) as counted, toInt64(0) as expected
    from {{ model }}
    where {{ in_rebuilt_days(day) }}
    union all
    select {{ day }}, toInt64(0) as counted, toInt64(1) as expected
    from {{ source_model }}
    where {{ in_rebuilt_days(day) }}
        and {{ row_condition }}
)
group by {{ day }}
having counted_rows != expected_rows

{% endtest %}
