-- Whose the record of a source is. Run as hansa_owner.

ALTER TABLE hansa.sources ADD COLUMN owner text NOT NULL DEFAULT '';
COMMENT ON COLUMN hansa.sources.owner IS 'Who told of it first, and may go on; empty: whoever tells of it next.';

ALTER TABLE hansa.api_keys ADD COLUMN predecessor text;
COMMENT ON COLUMN hansa.api_keys.predecessor IS 'The key that was rotated into it: what was that one''s is its own too.';
