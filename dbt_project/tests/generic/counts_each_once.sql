{#-
  On every refreshed day, `count_column` adds up to the rows of the staging model `source_model`, each `id` once within
  var repeat_days. Days on which rows of `stream` may arrive meanwhile are left to the next build.
-#}
{% test counts_each_once(model, count_column, source_model, id, day, stream) %}

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
    select {{ day }}, toInt64(0) as counted, toInt64(count()) as held
    from (
        {{ headrace.first_of_each(source_model, 'occurred_date', id, 0, 0, placed=day, hash='_key_hash') }}
    )
    where {{ headrace.in_rebuilt_days(day) }}
    group by {{ day }}
)
group by {{ day }}
having counted_rows != expected_rows
    and {{ day }} not in ({{ headrace.arriving(stream, day, day) }})

{% endtest %}
