select json_table.* from json_table('[1]', '$[*]' columns (a int path '$;')) as json_table;
select jsonb '{"a;": 1}' @? '$.a ? (@ > 1;)'; select xmlelement(name a, 'b;');
