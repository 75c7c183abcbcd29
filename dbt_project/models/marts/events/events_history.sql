{{
    config(
        partition_by='event_date',
        order_by=['session_id', 'window_time', 'event_id'],
    )
}}

select
    event_date,
    event_id,
    event_type,
    window_time,
    occurred_at,
    received_at,
    session_id,
    user_id,
    device_id,
    channel,
    page,
    conversation_id,
    duration_ms,
    properties,
    schema_version,
    _source,
    _ingested_at
from (
    {{ events_once(back=0, ahead=0) }}
)
where {{ in_rebuilt_days('event_date') }}
