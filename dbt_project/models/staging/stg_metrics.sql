with source as (

    -- * leaves out what ClickHouse works out by itself
    select *, _key_hash from {{ source('raw', 'metrics') }}

),

renamed as (

    select
        metric_id,
        name as metric_name,
        kind,
        value,
        coalesce(unit, '') as unit,
        source.source as source,
        mapSort(dimensions) as dimensions,
        occurred_at,
        source.metric_date as occurred_date,
        {{ window_time() }} as window_time,
        {{ window_date('source.metric_date') }} as metric_date,
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
