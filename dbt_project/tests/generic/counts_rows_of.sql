{#-
  On every refreshed day, `count_column` adds up to what `source_model` holds of that day: its rows that meet
  `row_condition`, or `expected` where that is another aggregate. Where the source is not built by the same run,
  `stream` names whose rows may arrive meanwhile: days on which they do are left to the next build.
-#}
{% test counts_rows_of(
    model, count_column, source_model, day, row_condition='true', expected='count()', stream=none
) %}

select
    {{ day }},
    sum(counted) as counted_rows,
    sum(held) as expected_rows
from (
    select {{ day }}, toInt64(sum({{ count_column }})) as counted, toInt64(0) as held
    from {{ model }}
    where {{ headrace.in_rebuilt_days(day) }}
    group by {{ day }}
    union all
    select {{ day }}, toInt64(0) as counted, toInt64({{ expected }}) as held
    from {{ source_model }}
    where {{ headrace.in_rebuilt_days(day) }}
        and {{ row_condition }}
    group by {{ day }}
)
group by {{ day }}
having counted_rows != expected_rows
    {%- if stream %}
    and {{ day }} not in ({{ headrace.arriving(stream, day, day) }})
    {%- endif %}

{% endtest %}
