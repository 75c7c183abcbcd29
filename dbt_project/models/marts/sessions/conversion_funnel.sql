{{ config(materialized='view') }}
{%- set steps = headrace.setting('funnel_steps') %}

with counted as (

    select
        session_date,
        channel,
        arrayJoin(range(1, {{ steps | length + 1 }})) as step,
        countIf(funnel_step >= step) as sessions,
        countIf(funnel_step >= step - 1) as sessions_before,
        count() as all_sessions
    from {{ ref('session_metrics') }}
    group by session_date, channel, step

)

select
    session_date,
    channel,
    toUInt8(step) as step,
    [{{ quoted_list(steps | map(attribute='name')) }}][step] as step_name,
    sessions,
    if(sessions_before > 0, sessions / sessions_before, null) as share_of_previous_step,
    sessions / all_sessions as share_of_sessions
from counted
