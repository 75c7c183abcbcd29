{#- in event time both days are the same, and a filter on the day of the outer query reaches the table -#}
select *
from {{ ref('stg_events') }}
qualify row_number() over (
    partition by {{ 'event_date' if in_event_time() else 'occurred_date' }}, event_id
    order by _ingested_at, _cursor, _offset, _message_id, _index
) = 1
