{#-
  No `key` of the refreshed days counts on another day within var repeat_days. One that does was built there before a row
  that had landed first was published, by another writer or with another clock: a rebuild of that day heals it. Keys that
  came again are found in `source_model` by their hashes, and only these are looked for in the mart.

  With repeat_days 0 every day stands alone, and what a producer sent for two days in a row is told.
-#}
{% test stays_on_one_day(model, key, day, source_model) %}
{%- set reach = [headrace.setting('repeat_days') | int, 1] | max -%}
{%- set own = headrace.in_rebuilt_days(day) -%}
{%- set around = headrace.in_rebuilt_days(day, back=reach, ahead=reach) %}

with came_again as (

    select {{ key }} as again, {{ day }} as day
    from {{ source_model }}
    where {{ around }}
        and not ({{ own }})
        and _key_hash in (select _key_hash from {{ source_model }} where {{ own }})
    union all
    select {{ key }} as again, {{ day }} as day
    from {{ source_model }}
    where {{ own }}
        and _key_hash in (
            select _key_hash from {{ source_model }} where {{ own }} group by _key_hash having count() > 1
        )

)

select
    {{ key }},
    arraySort(groupUniqArray(toDate(occurred_at))) as days
from {{ model }}
where {{ around }}
    and ({{ own }} or {{ day }} in (select came_again.day from came_again))
    and {{ key }} in (select came_again.again from came_again)
group by {{ key }}
having arrayExists(apart -> apart between 1 and {{ reach }}, arrayDifference(arrayMap(one -> toInt32(one), days)))

{% endtest %}
