{{
    config(
        incremental_strategy='append',
        engine='ReplacingMergeTree',
        order_by=['user_id', 'activity_date'],
    )
}}

with seen as (

    select user_id, event_date
    from {{ ref('events_history') }}
    where {{ in_rebuilt_days('event_date') }}
        and user_id is not null

)

select distinct
    assumeNotNull(seen.user_id) as user_id,
    event_date as activity_date
from seen
