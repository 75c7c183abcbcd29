with source as (

    {%- for stream in ['events', 'metrics'] if headrace.has_stream(stream) %}
    select '{{ stream }}' as stream, * from {{ source('raw', stream ~ '_rejected') }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}

),

renamed as (

    select
        stream,
        contract,
        contract_version,
        reasons,
        arrayDistinct(reasons.check) as failed_checks,
        arrayDistinct(reasons.column) as failed_columns,
        payload,
        _key as message_key,
        message_timestamp,
        rejected_date,
        _source,
        _cursor,
        _offset,
        _message_id,
        _index,
        _ingested_at,
        _batch_id
    from source

)

select * from renamed
