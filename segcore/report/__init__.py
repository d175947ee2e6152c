"""Reports: records in; terminal, HTML, Markdown or CI formats out."""
