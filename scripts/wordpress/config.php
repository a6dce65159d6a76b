<?php
// Settings of the demo site; scripts/wordpress-demo copies this file to wp-config.php.
$demo = json_decode( file_get_contents( dirname( __DIR__ ) . '/settings.json' ) );

define( 'DB_NAME', 'wordpress' );
define( 'DB_USER', 'root' );
define( 'DB_PASSWORD', '' );
define( 'DB_HOST', 'localhost:' . $demo->socket );
define( 'DB_CHARSET', 'utf8mb4' );
define( 'DB_COLLATE', '' );
foreach ( array( 'AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE' ) as $name ) {
	define( $name . '_KEY', 'demo key ' . $name );
	define( $name . '_SALT', 'demo salt ' . $name );
}
$table_prefix = 'wp_';

define( 'WP_HOME', $demo->url );
define( 'WP_SITEURL', $demo->url );
define( 'WP_CONTENT_URL', $demo->url . '/wp-content' );
define( 'WP_ENVIRONMENT_TYPE', 'local' ); // allows application passwords without HTTPS
define( 'DISABLE_WP_CRON', true );
define( 'AUTOMATIC_UPDATER_DISABLED', true );
define( 'WP_HTTP_BLOCK_EXTERNAL', true ); // asks no other host for anything
define( 'WP_DEBUG', false );

defined( 'ABSPATH' ) || define( 'ABSPATH', __DIR__ . '/' );
require_once ABSPATH . 'wp-settings.php';
