"""PostgreSQL, where the truth lives: the pool, named SQL, and the stores."""
