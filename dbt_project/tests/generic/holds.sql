{#-
  No two rows of the refreshed days agree in all columns of `grain`, and every condition holds in every row: one scan
  for all of it. Rows are named by their grain, with how many there are and the conditions that any of them breaks.
  In a table of `states` rows may agree: those of one grain are merged when ClickHouse likes.
-#}
{% test holds(model, grain, conditions, day, states=false) %}

select
    {{ grain | join(', ') }},
    count() as copies,
    [
        {%- for condition in conditions %}
        countIf(not ifNull(toBool({{ condition }}), false)){{ ',' if not loop.last }}
        {%- endfor %}
    ] as breaks,
    arrayFilter(
        (condition, broken) -> broken > 0, [{{ headrace.quoted_list(conditions) }}], breaks
    ) as broken
from {{ headrace.every_shard(model) if states else model }}
where {{ headrace.in_rebuilt_days(day) }}
group by {{ grain | join(', ') }}
having {{ 'copies > 1 or' if not states }} arraySum(breaks) > 0

{% endtest %}
