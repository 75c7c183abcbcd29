{{ config(materialized='view') }}

select
    activity_date,
    sum(users) as active_users,
    sumIf(users, cohort_date = activity_date) as new_users,
    sumIf(users, cohort_date < activity_date) as returning_users
from {{ ref('cohort_days') }}
group by activity_date
