{{ config(materialized='view') }}

select
    stream,
    rejected_date as day,
    arrayJoin(failed_checks) as reason,
    count() as records
from {{ ref('stg_rejected') }}
group by stream, day, reason
