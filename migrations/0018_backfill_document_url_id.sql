update documents
   set url_id = substr(replace(gen_random_uuid()::text, '-', ''), 1, 12)
 where url_id is null;
