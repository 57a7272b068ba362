select 1 @-- ;
 2; select 1 +/* ; */ 2; select a ->> 'b;', c #>> '{d;}', e @> f, 1 <>-1, 2 !=-1, x ~* ';' from t;
select 1::int, array[1,2][1], (array[1])[1:1], a := 1 from f(b => 2);
