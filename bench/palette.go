package main

import "image/color"

// palette tells the proxies apart, also for who does not tell red from green.
var palette = []color.Color{
	color.RGBA{0x00, 0x72, 0xb2, 0xff}, color.RGBA{0xe6, 0x9f, 0x00, 0xff}, color.RGBA{0x99, 0x99, 0x99, 0xff},
}
