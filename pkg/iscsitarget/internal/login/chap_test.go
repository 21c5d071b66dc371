package login

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// The response of RFC 1994 under each algorithm, from independent tools:
// printf '\x01secretchallenge' | md5sum, sha1sum, sha256sum, openssl dgst -sha3-256.
func TestRespond(t *testing.T) {
	want := map[string]string{
		"5": "46e47770030e2b4e26a0db72a7efec00", "6": "011f25d29fe1baaced569c0d7e4878e40ddb7d7e", "7": "2dfa0526f4764864b7c3c5bc6596bcead3d8dbd984f4fc1d9f330299f0beced4", "8": "9444877c4dff778ed2add0f102dcd561e11944e7e948ee1b89508451a9e680ad",
	}
	for _, a := range chapAlgorithms {
		if got := hex.EncodeToString(a.respond(1, "secret", []byte("challenge"))); got != want[a.name] {
			t.Errorf("algorithm %s: %s", a.name, got)
		}
	}
	if len(chapAlgorithms) != len(want) {
		t.Errorf("%d algorithms", len(chapAlgorithms))
	}
}

func TestDecodeBinary(t *testing.T) {
	full := bytes.Repeat([]byte{0xab}, maxCHAPBinary)
	for in, want := range map[string][]byte{
		"0x00": {0}, "0X0aFf": {0x0a, 0xff}, "0x1": {1}, "0x123": {1, 0x23}, "0bQQ==": {'A'}, "0BQUI": []byte("AB"), "0bQUJD": []byte("ABC"),
		"0x" + hex.EncodeToString(full):                full,
		"0b" + base64.StdEncoding.EncodeToString(full): full,
	} {
		if got, err := decodeBinary(in); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%.40q: % x, %v", in, got, err)
		}
	}
	long := append(full, 0)
	for _, in := range []string{
		"", "0", "0x", "0b", "0b=", "0b====", "00", "1234", "0y00", "x00", "0xg0", "0b!!!!", "0x0 ", " 0x00", "0bQ",
		"0x" + hex.EncodeToString(long), "0b" + base64.StdEncoding.EncodeToString(long),
		"0x" + strings.Repeat("0", 8000), "0b" + strings.Repeat("A", 8000),
	} {
		if got, err := decodeBinary(in); !errors.Is(err, errAuth) {
			t.Errorf("%.40q: % x, %v", in, got, err)
		}
	}
}

// FuzzDecodeBinary: what is decoded is 1 to 1024 bytes, and encoded and decoded
// again the same.
func FuzzDecodeBinary(f *testing.F) {
	for _, s := range []string{"0x0102", "0bQUJD", "0x", "0b=", "1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := decodeBinary(s)
		if err != nil {
			return
		}
		again, err := decodeBinary(encodeBinary(b))
		if err != nil || !bytes.Equal(b, again) || len(b) == 0 || len(b) > maxCHAPBinary {
			t.Errorf("%q: %d bytes, %v", s, len(b), err)
		}
	})
}
