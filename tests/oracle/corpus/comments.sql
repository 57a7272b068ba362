-- ; one
/* two ; /* three ; */ four ; */ select 1 /* ; */; -- five ;
select 2 - -1 --; six
;; ; /**/ ; select 3 /*/ ; */
