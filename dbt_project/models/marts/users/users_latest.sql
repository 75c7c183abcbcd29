{{
    config(
        incremental_strategy='append',
        engine='ReplacingMergeTree(last_seen_at)',
        order_by=['user_id'],
    )
}}

with seen as (

    select *, (window_time, event_id, occurred_at) as place
    from {{ ref('events_history') }}
    where {{ in_rebuilt_days('event_date') }}
        and user_id is not null

),

newest as (

    select
        assumeNotNull(seen.user_id) as user_id,
        max(window_time) as last_seen_at,
        argMax((event_id, event_type, channel, session_id, device_id, page), place) as latest
    from seen
    group by user_id

)

select
    user_id,
    last_seen_at,
    latest.1 as last_event_id,
    toLowCardinality(latest.2) as last_event_type,
    toLowCardinality(latest.3) as last_channel,
    latest.4 as last_session_id,
    latest.5 as last_device_id,
    latest.6 as last_page
from newest
