"""One file for each page, with one public function, `page()`, that draws it."""
