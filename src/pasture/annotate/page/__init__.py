"""The labelling page: a campaign in a browser, server-rendered. Everything here needs the extra [people]."""
