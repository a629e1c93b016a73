"""Room 7: what a person reads. Records and numbers in; a page, figures and terminal tables out."""
