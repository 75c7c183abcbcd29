{{ config(materialized='view') }}

with watermarks as (

    {{ watermarks('events') }}

),

-- a session goes over to the speed layer as a whole, with all its rows there: late or early events may have moved
-- them between days
unfinished as (

    select distinct speed.session_id
    from {{ ref('session_metrics_speed') }} as speed
    left join watermarks on speed.session_date = watermarks.day
    where speed.ended_at >= watermarks.complete_until

)

select *
from {{ ref('session_metrics') }}
where session_date < toDate(now('UTC')) - {{ headrace.setting('speed_days') | int }}
    or session_id not in (select unfinished.session_id from unfinished)
union all
select *
from {{ ref('session_metrics_speed') }}
where session_id in (select unfinished.session_id from unfinished)
