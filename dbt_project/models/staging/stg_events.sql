with source as (

    -- * leaves out what ClickHouse works out by itself
    select *, _key_hash from {{ source('raw', 'events') }}

),

renamed as (

    select
        event_id,
        event_type,
        occurred_at,
        received_at,
        source.event_date as occurred_date,
        {{ window_time() }} as window_time,
        {{ window_date('source.event_date') }} as event_date,
        session_id,
        user_id,
        device_id,
        channel,
        page_url,
        screen_name,
        {{ page() }} as page,
        conversation_id,
        duration_ms,
        properties,
        schema_version,
        _source,
        _cursor,
        _offset,
        _message_id,
        _index,
        _ingested_at,
        _batch_id,
        _key_hash
    from source

)

select * from renamed
