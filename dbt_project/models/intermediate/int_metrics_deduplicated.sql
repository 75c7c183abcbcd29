{{ first_of_each(ref('stg_metrics'), 'metric_date' if in_event_time() else 'occurred_date', 'metric_id') }}
