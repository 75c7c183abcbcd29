{#- in event time both days are the same, and a filter on the day of the outer query reaches the table -#}
{{ first_of_each(ref('stg_events'), 'event_date' if in_event_time() else 'occurred_date', 'event_id') }}
