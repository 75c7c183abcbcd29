{{ config(materialized='view') }}

with followed as (

    select
        cohort_date,
        toUInt16(activity_date - cohort_date) as days_since,
        -- on its first day a cohort is there as a whole
        maxIf(users, activity_date = cohort_date) over (partition by cohort_date) as cohort_users,
        users as retained_users
    from {{ ref('cohort_days') }}

)

select
    cohort_date,
    days_since,
    cohort_users,
    retained_users,
    retained_users / cohort_users as retained_share
from followed
where days_since <= {{ headrace.setting('retention_days') | int }}
