-- Functions and views are not made by revisions any more: `hansa migrate` brings those of hansa/db/definitions after them. Run as hansa_owner.

ALTER TABLE hansa.installation
  ADD COLUMN edition integer NOT NULL DEFAULT 0,
  ADD COLUMN definitions text NOT NULL DEFAULT '';
COMMENT ON COLUMN hansa.installation.edition IS 'Which edition of functions and views was brought last; it grows with each change of them.';
COMMENT ON COLUMN hansa.installation.definitions IS 'The digest of what was brought (hansa.db.defining).';
