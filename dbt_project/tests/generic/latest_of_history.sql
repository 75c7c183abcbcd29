{#- For every `key` seen on the refreshed days, the model's state is no older than its latest event of those days. -#}
{% test latest_of_history(model, key) %}

with seen as (

    select assumeNotNull({{ key }}) as key, max(window_time) as seen_at
    from {{ ref('events_history') }}
    where {{ headrace.in_rebuilt_days('event_date') }}
        and {{ key }} is not null
    group by key

),

held as (

    select {{ key }} as key, max(last_seen_at) as held_at, count() as copies
    from {{ model }} final
    group by key

)

select seen.key, seen.seen_at, held.held_at, held.copies
from seen
left join held on seen.key = held.key
where held.held_at < seen.seen_at
    or held.copies != 1

{% endtest %}
