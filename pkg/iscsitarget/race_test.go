//go:build race

package iscsitarget_test

// raceFactor is how much more memory a program with the race detector may have.
const raceFactor = 10
