//! Which extension has a type, a function or an operator class. Pure.

/// Extensions, each with the names by which migrations meet them: types, functions, operator
/// classes, access methods, schemas.
const OBJECTS: &[(&str, &[&str])] = &[
    ("bloom", &["bloom"]),
    // An exclusion constraint with `=` asks for a default operator class of this method.
    ("btree_gist", &["gist"]),
    ("citext", &["citext"]),
    ("cube", &["cube"]),
    ("earthdistance", &["earth", "earth_box", "earth_distance", "ll_to_earth"]),
    ("fuzzystrmatch", &["daitch_mokotoff", "dmetaphone", "levenshtein", "metaphone", "soundex"]),
    ("hstore", &["hstore", "gin_hstore_ops", "gist_hstore_ops"]),
    ("intarray", &["gin__int_ops", "gist__int_ops", "gist__intbig_ops", "query_int"]),
    ("isn", &["ean13", "isbn", "isbn13", "issn", "issn13", "upc"]),
    ("ltree", &["ltree", "lquery", "ltxtquery", "gist_ltree_ops", "nlevel", "text2ltree"]),
    ("pg_cron", &["cron"]),
    ("pg_trgm", &["gin_trgm_ops", "gist_trgm_ops", "similarity", "word_similarity", "show_trgm"]),
    ("pg_uuidv7", &["uuid_generate_v7"]),
    (
        "pgcrypto",
        &[
            "crypt",
            "digest",
            "gen_random_bytes",
            "gen_salt",
            "hmac",
            "pgp_pub_decrypt",
            "pgp_pub_encrypt",
            "pgp_sym_decrypt",
            "pgp_sym_encrypt",
        ],
    ),
    ("postgis", &["geography", "geometry"]),
    ("postgis_raster", &["raster"]),
    ("tablefunc", &["connectby", "crosstab", "normal_rand"]),
    ("timescaledb", &["create_hypertable", "time_bucket"]),
    ("unaccent", &["unaccent"]),
    (
        "uuid-ossp",
        &[
            "uuid_generate_v1",
            "uuid_generate_v1mc",
            "uuid_generate_v3",
            "uuid_generate_v4",
            "uuid_generate_v5",
            "uuid_nil",
        ],
    ),
    (
        "vector",
        &[
            "vector",
            "halfvec",
            "sparsevec",
            "hnsw",
            "ivfflat",
            "bit_hamming_ops",
            "bit_jaccard_ops",
        ],
    ),
];

/// Names that begin like this.
const PREFIXES: &[(&str, &str)] = &[
    ("btree_gist", "gist_"),
    ("postgis", "st_"),
    ("vector", "vector_"),
    ("vector", "halfvec_"),
    ("vector", "sparsevec_"),
];

/// The extension that has this object. A schema before the name does not count, nor the brackets of
/// an array.
pub fn extension_of(object: &str) -> Option<&'static str> {
    let name = object.rsplit('.').next().unwrap_or(object).trim_end_matches("[]");
    let exact = OBJECTS.iter().find(|(_, names)| names.contains(&name));
    let like = || PREFIXES.iter().find(|(_, prefix)| name.starts_with(prefix));
    exact.map(|(extension, _)| *extension).or_else(|| like().map(|(extension, _)| *extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_known_by_what_it_has() {
        for (object, extension) in [
            ("vector", Some("vector")),
            ("public.vector", Some("vector")),
            ("citext[]", Some("citext")),
            ("vector_cosine_ops", Some("vector")),
            ("gin_trgm_ops", Some("pg_trgm")),
            ("gist_trgm_ops", Some("pg_trgm")),
            ("gist_uuid_ops", Some("btree_gist")),
            ("extensions.uuid_generate_v4", Some("uuid-ossp")),
            ("st_makepoint", Some("postgis")),
            ("vector(3)", None),
            ("gin", None),
            ("users", None),
        ] {
            assert_eq!(extension_of(object), extension, "{object}");
        }
    }
}
