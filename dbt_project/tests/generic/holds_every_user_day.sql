{#- The users of each refreshed day are those of events_history. -#}
{% test holds_every_user_day(model) %}

select event_date as day, assumeNotNull(user_id) as user
from {{ ref('events_history') }}
where {{ headrace.in_rebuilt_days('event_date') }}
    and user_id is not null
    and (user_id, event_date) not in (
        select user_id, activity_date from {{ model }} where {{ headrace.in_rebuilt_days('activity_date') }}
    )
group by day, user

{% endtest %}
