select 'a;b', 'it''s', e'\';', E'\\', n'x;', b'01', x'ff', u&'\0041;', U&'d!0061' uescape '!', 'a'
  'b;c', 'a' -- ;
  'd';
select '\'; select ';';
