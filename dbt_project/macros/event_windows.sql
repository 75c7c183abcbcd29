{#- event_metrics for windows of these widths, s. -#}
{% macro event_windows(widths) %}
with events as (

    select
        event_date,
        arrayJoin({{ headrace.window_widths(widths) }}) as window_seconds,
        {{ headrace.window_start('window_time', 'window_seconds') }} as window_start,
        event_type,
        channel,
        session_id,
        user_id
    from {{ ref('events_history') }}
    where {{ headrace.in_rebuilt_days('event_date') }}

)

select
    event_date,
    window_start,
    window_seconds,
    event_type,
    channel,
    count() as events,
    uniqExact(user_id) as unique_users,
    uniqExact(session_id) as unique_sessions
from events
group by event_date, window_start, window_seconds, event_type, channel
{% endmacro %}
