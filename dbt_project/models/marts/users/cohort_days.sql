{{
    config(
        partition_by='activity_date',
        order_by=['cohort_date'],
    )
}}

with users as (

    select
        user_id,
        min(activity_date) as cohort_date,
        -- a table that is not there yet gets every day: user_days holds them all, whichever are being rebuilt
        groupUniqArrayIf(
            activity_date,
            {{ in_rebuilt_days('activity_date', later=true) if rebuilt_range() and is_incremental() else 'true' }}
        ) as active_dates
    from {{ ref('user_days') }}
    group by user_id

),

active as (

    select
        cohort_date,
        arrayJoin(active_dates) as activity_date
    from users

)

select
    activity_date,
    cohort_date,
    count() as users
from active
group by activity_date, cohort_date
