copy t from stdin;
1	;
\.
copy t (a, b) to stdout with (format csv, delimiter ';');
