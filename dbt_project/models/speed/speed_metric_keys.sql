{{ speed_keys('metrics', 'metric_date') }}
