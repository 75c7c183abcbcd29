{#-
  On every refreshed day, `count_column` of the windows of each width adds up to that of `source_model`. Where both are
  built from the raw table, one after the other, `stream` names whose rows may arrive between: days on which they do
  are left to the next build.
-#}
{% test adds_up_to(model, count_column, source_model, day, stream=none) %}

with rolled_up as (

    select {{ day }} as day, window_seconds, sum({{ count_column }}) as counted_rows
    from {{ model }}
    where {{ headrace.in_rebuilt_days(day) }}
    group by day, window_seconds

),

expected as (

    select {{ day }} as day, arrayJoin({{ headrace.window_widths(headrace.rollup_widths()) }}) as window_seconds, sum({{ count_column }}) as expected_rows
    from {{ source_model }}
    where {{ headrace.in_rebuilt_days(day) }}
    group by day, window_seconds

)

select day, window_seconds, counted_rows, expected_rows
from rolled_up
full outer join expected using (day, window_seconds)
where counted_rows != expected_rows
    {%- if stream %}
    and day not in ({{ headrace.arriving(stream, day, day) }})
    {%- endif %}

{% endtest %}
