select *
from {{ ref('stg_metrics') }}
qualify row_number() over (
    partition by {{ 'metric_date' if in_event_time() else 'occurred_date' }}, metric_id
    order by _ingested_at, _cursor, _offset, _message_id, _index
) = 1
