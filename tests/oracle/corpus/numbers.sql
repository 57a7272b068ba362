select 1., .5, 1e10, 1.5e-3, 0x1F, 0o17, 0b11, 1_000, 1..2 from generate_series(1, 2); select 1e+1;
