{{ speed_keys('events', 'event_date') }}
