select 1 into temp; select a into temporary from t; select 1 into temp table "from" from t; select 1 into temp union select 2;
