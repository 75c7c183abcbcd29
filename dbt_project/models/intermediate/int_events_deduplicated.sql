select *
from {{ ref('stg_events') }}
qualify row_number() over (
    partition by event_date, event_id
    order by _ingested_at, _cursor, _offset, _message_id, _index
) = 1
