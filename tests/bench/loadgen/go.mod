module hansa.dev/tests/loadgen

go 1.22
