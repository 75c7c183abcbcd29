{{
    config(
        incremental_strategy='append',
        engine='ReplacingMergeTree(last_seen_at)',
        order_by=['session_id'],
    )
}}

with newest as (

    select
        session_id,
        max(window_time) as last_seen_at,
        argMax(
            (event_id, event_type, channel, user_id, device_id, page),
            (window_time, event_id, occurred_at)
        ) as latest
    from {{ ref('events_history') }}
    where {{ in_rebuilt_days('event_date') }}
    group by session_id

)

select
    session_id,
    last_seen_at,
    latest.1 as last_event_id,
    toLowCardinality(latest.2) as last_event_type,
    toLowCardinality(latest.3) as last_channel,
    latest.4 as user_id,
    latest.5 as last_device_id,
    latest.6 as last_page
from newest
