"""All tasks of a folder in one command, and the page that says how good their heads are."""
