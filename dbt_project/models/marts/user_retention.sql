{{ config(materialized='view', tags=['events', 'daily']) }}

with users as (

    select
        user_id,
        min(activity_date) as cohort_date,
        groupUniqArray(activity_date) as active_dates
    from {{ ref('user_days') }}
    group by user_id

),

followed as (

    select
        cohort_date,
        toUInt16(arrayJoin(active_dates) - cohort_date) as days_since
    from users

),

retained as (

    select
        cohort_date,
        days_since,
        count() as retained_users
    from followed
    where days_since <= {{ var('retention_days') | int }}
    group by cohort_date, days_since

),

cohorts as (

    select
        cohort_date,
        count() as cohort_users
    from users
    group by cohort_date

)

select
    retained.cohort_date as cohort_date,
    retained.days_since as days_since,
    cohorts.cohort_users as cohort_users,
    retained.retained_users as retained_users,
    retained.retained_users / cohorts.cohort_users as retained_share
from retained
inner join cohorts on retained.cohort_date = cohorts.cohort_date
