-- Which times of which schedules were worked on. Runs across tenants.

-- name: latest_fire
-- The latest time of a schedule that was begun.
SELECT fire_at, started_at, ended_at
FROM schedule_fires
WHERE schedule = $1
ORDER BY fire_at DESC
LIMIT 1;

-- name: introduce_schedule
-- Makes a schedule known, with a time that is over already.
INSERT INTO schedule_fires (schedule, fire_at, started_at, ended_at)
VALUES ($1, $2, $2, $2)
ON CONFLICT (schedule, fire_at) DO NOTHING;

-- name: begin_fire
-- Takes a time that nobody has, or whose worker began before $4 and is lost. Returns no row when it is another's.
INSERT INTO schedule_fires (schedule, fire_at, started_at)
VALUES ($1, $2, $3)
ON CONFLICT (schedule, fire_at)
    DO UPDATE SET started_at = EXCLUDED.started_at
    WHERE schedule_fires.ended_at IS NULL AND schedule_fires.started_at < $4
RETURNING fire_at;

-- name: end_fire
-- Ends a time that the caller began at $3, unless another has taken it over.
UPDATE schedule_fires SET ended_at = $4 WHERE schedule = $1 AND fire_at = $2 AND started_at = $3 AND ended_at IS NULL;
