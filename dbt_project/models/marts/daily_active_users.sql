{{ config(materialized='view', tags=['events', 'daily']) }}

with distinct_days as (

    -- not yet merged rows repeat themselves
    select distinct
        user_id,
        activity_date
    from {{ ref('user_days') }}

),

days as (

    select
        user_id,
        activity_date,
        min(activity_date) over (partition by user_id) as first_date
    from distinct_days

)

select
    activity_date,
    count() as active_users,
    countIf(activity_date = first_date) as new_users,
    countIf(activity_date > first_date) as returning_users
from days
group by activity_date
