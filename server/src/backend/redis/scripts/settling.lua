-- Lets a script that else only reads settle the namespace first.
must_settle = false
